"""The command line: the only part of vds that prints."""
