"""The configuration, in reading order.

model        the keys: one class for each block
units        64MiB, 250ms
values       the other scalars
load         YAML -> model, with every fault and its place
references   what blocks say about each other
files        what must exist
conventions  a folder without a configuration -> model
cpus         threads: auto
plan         model -> what runs
source       where it all comes from, so that it can be read again
reference    model -> docs/configuration.md
"""
