/* fingerprint.h: by what a request is known again that comes another time. Loop thread. */
#ifndef AS_HANDLER_FINGERPRINT_H
#define AS_HANDLER_FINGERPRINT_H

#include "http/request.h"

#define AS_FINGERPRINT_BODY (64 * 1024) /* bytes of the body that count; its length always does */

/* Of `text` alone; to be handed to as_fingerprint(). */
uint64_t as_fingerprint_text(as_str text);
/* Of method, target and body; `where` tells equal requests to different applications apart. Not for a secret: everybody can compute it, and find another
 * request with the same one. A body in a file is read. */
uint64_t as_fingerprint(const as_request *request, uint64_t where);

#endif
