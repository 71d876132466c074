"""The schema's history, shipped with the package: an installed vds can make and upgrade an index."""
