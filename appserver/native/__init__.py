"""Everything that touches the compiled core: the only importer of `appserver.native._core`.

control       messages with descriptors between the supervisor and its children (no compiled code)
server        the server of the C API as a class
snapshot      a plan (JSON) -> builder calls -> a snapshot
report        events and counters
process       what a process asks of the kernel for itself
core_main     the core process
spawner_main  the process that starts CGI programs
"""
