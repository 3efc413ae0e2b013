"""Report pages: results as one HTML file that can be sent as it is and needs no network.

A page is a list of sections, and a section a title with parts: `Text`, `Bullets`, `Facts`, `Table`, `Picture`,
`Advice`. Every part has a template of its own under templates/parts/; style, script and frame are in templates/.

    findings.py   what a comparison of files found
    sections.py   SECTIONS: functions from findings to a section, in the order of the page
    advice.py     ADVICE: functions from findings to what to do next
    figures.py    SECTIONS' figures: a matplotlib figure -> inline SVG, with PNG and PDF to download
    page.py       sections and parts, and the page made of them

To add a section, write a function that takes `Findings` and returns a `Section`, or None if there is nothing to say,
and name it in SECTIONS. What it shows goes into `Findings`, with a default that stands for "not computed":

    def stability(findings: Findings) -> Section | None:
        if findings.stability is None:
            return None
        return Section("stability", "Stability", [Text(findings.stability.verdict), Table.of(findings.stability.table)])

A part that none of the templates can show takes a dataclass with a ``template`` and one file under templates/parts/.
Names that users chose reach the page through autoescaping templates: never build HTML from them by hand. To add advice,
write a function that returns `Advice` or None, and name it in ADVICE.
"""
