/* metrics.h: the handler that answers with the metrics of all loops (docs/metrics.md). */
#ifndef AS_HANDLER_METRICS_H
#define AS_HANDLER_METRICS_H

#include "http/request.h"

as_handler *as_metrics_handler_new(void);

#endif
