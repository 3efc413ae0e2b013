"""The bench on which both packages are put to work: config.yaml -> settings, notebooks -> results, one command line.

``settings``   the schema of config.yaml, read and checked in one go
``notebooks``  executes notebooks into results/, and saves their figures
``__main__``   python -m workbench

Nothing is imported here: ``python -m workbench --help`` answers before torch could be loaded.
"""
