/* stderr_lines.h: cuts what a program writes to its stderr into lines for the log, and bounds how many. No I/O, no allocation; one owner thread. */
#ifndef AS_SPAWNER_STDERR_LINES_H
#define AS_SPAWNER_STDERR_LINES_H

#include "base/str.h"

enum {
    /* Longest line; the rest of a longer one is dropped and "..." says so. Leaves room for the program's name in an event's text. */
    AS_STDERR_LINE = 376,
    /* Lines of one program that are logged. The attack: a program that fills the log. */
    AS_STDERR_MAX_LINES = 200,
};

/* Zeroed before use. */
typedef struct as_stderr_lines {
    uint32_t lines;         /* given to `emit` */
    uint64_t dropped_lines; /* beyond the limit */
    uint64_t dropped_bytes; /* beyond the limit, and of lines that were cut */
    uint32_t len;
    bool is_cut;
    char line[AS_STDERR_LINE + 4];
} as_stderr_lines;

typedef void as_stderr_emit(void *owner, as_str line);

/* Control characters other than tab come out as "?": a log is read on terminals. Empty lines are left out. */
void as_stderr_take(as_stderr_lines *lines, as_str bytes, as_stderr_emit *emit, void *owner);
/* The last line, when it has no newline. */
void as_stderr_finish(as_stderr_lines *lines, as_stderr_emit *emit, void *owner);

#endif
