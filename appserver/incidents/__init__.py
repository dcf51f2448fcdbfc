"""Records of workers that died and of requests that ran too long. In reading order:

record    one incident and its JSON
store     a directory of them
commands  `cherokee-app incidents`
"""
