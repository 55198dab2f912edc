"""Profiles: many looks at the stacks of processes, weighed, and the files and tables made of them."""
