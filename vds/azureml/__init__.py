"""The names of the AzureML SDK v1 over a vds store: `from vds.azureml.core import Workspace, Datastore, Dataset`.

Scripts written for that SDK run on after a change of their import lines. What is safer than there, and what is not there at all,
is listed in this folder's README.md.
"""
