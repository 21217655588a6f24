"""The files of a run: names that are safe, download and upload."""
