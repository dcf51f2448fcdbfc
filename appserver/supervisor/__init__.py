"""The supervisor: binds, starts, watches, replaces, drains, reloads. In reading order:

supervisor  start order, signals, readiness, the end
core        the core process
executors   the executors of one pool: effects
overdue     requests past their time: stacks, interrupt, replacement
stacks      the file in memory that a worker's stacks go to
pool        which executors run: the policy, pure
backoff     how long to wait before another try, pure
reload      a reload, step by step
leftovers   programs of a spawner that has died
process     one child: control channel, output, death
output      bytes into lines for the log
loop        descriptors, timers, signals
sockets     what is listened on
segments    what joins core and executors: queue, answers, slots
watch       what has changed on disk (--dev)
identity    user and group of the children
access_log  its descriptor
incidents   what went wrong with workers, put together and kept (appserver/incidents/)
incidents_pool      the same for one pool: facts and sentences
incidents_evidence  memory of the living, out-of-memory kills
replay      `cherokee-app incidents replay`: supervisor and core for one request
frames      requests and answers, for that
"""

from appserver.supervisor.supervisor import run

__all__ = ["run"]
