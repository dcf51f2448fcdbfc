/* trial.h: one request that is run twice, by a new interpreter and by one that had started already, and what is not the same in the two runs. Loop thread.
 *
 * The client gets the answer of the new one. Outputs stay in their pipes and are copied at the end. */
#ifndef AS_SPAWNER_TRIAL_H
#define AS_SPAWNER_TRIAL_H

#include "base/buf.h"

enum {
    /* Of each stream; with more there is nothing to compare. */
    AS_TRIAL_OUTPUT = 512 * 1024,
    AS_TRIAL_ERRORS = 64 * 1024,
    /* Likewise when a run takes longer. */
    AS_TRIAL_MS = 10 * 1000,
};

typedef enum as_trial_side {
    AS_TRIAL_COLD,
    AS_TRIAL_WARM,
} as_trial_side;

typedef struct as_trial as_trial;

/* `difference` says what is not the same and where; NULL: nothing. */
typedef void as_trial_over(void *owner, const char *script, const char *difference);

/* For two runs, each of which ends it once; the second frees it. `script` is copied. */
as_trial *as_trial_new(const char *script, as_trial_over *over, void *owner);
void as_trial_add_errors(as_trial *trial, as_trial_side side, as_str bytes);
/* Room for as much in the pipe as is compared, when the system grants it. */
void as_trial_widen(int output_fd);
/* Whether the pipe holds more than is compared. */
bool as_trial_is_too_much(int output_fd);
/* One run has ended with this status, and what it wrote is in the pipe, where it stays. After the second one `over` is called, unless it was abandoned. */
void as_trial_end(as_trial *trial, as_trial_side side, int output_fd, int status);
/* Nothing will be compared. Both runs still end it. */
void as_trial_abandon(as_trial *trial);
bool as_trial_is_abandoned(const as_trial *trial);

#endif
