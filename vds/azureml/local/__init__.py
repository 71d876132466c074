"""Steps run on this machine: what a step is, in which order steps run, when one need not run again."""
