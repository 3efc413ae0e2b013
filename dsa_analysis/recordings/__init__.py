"""Files of recordings -> systems: every choice on the way is stated and kept.

    recordings = load_recordings(["monday.mat", "tuesday.mat"], variable="rates", axes="channel, time, trial",
                                 sampling_rate=100, smooth=20)
    similarity = compare(recordings, n_delays=10, rank=10)

Files are .npy, .npz, .mat (of all versions) and .nwb (2.x). You add a format of your own with one line,
``READERS[".xyz"] = reader``; `readers` says what a reader returns, with an example.

What a file does not say is asked for: which of several arrays, which axis is time where its lengths leave doubt, the
sampling rate where you speak of milliseconds. A file that could be read in two ways is refused. Processing happens in
the order smooth, decimate, zscore, and only as far as you ask for it.
"""

from dsa_analysis.recordings.contents import SpikeTrains
from dsa_analysis.recordings.load import Recording, load_recording, load_recordings
from dsa_analysis.recordings.readers import READERS

__all__ = ["READERS", "Recording", "SpikeTrains", "load_recording", "load_recordings"]
