"""What scripts import from `azureml.data`."""
