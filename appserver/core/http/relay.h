/* relay.h: a connection that has changed to another protocol (RFC 9110 section 7.8): bytes go both ways between the client and the stream socket that its
 * request shares with an executor. Loop thread. */
#ifndef AS_HTTP_RELAY_H
#define AS_HTTP_RELAY_H

#include "http/h1.h"

/* Whether the client asks for a protocol that may be relayed, which request->upgrade then names. */
bool as_relay_is_asked_for(as_request *request);

/* In phase HANDLER: the answer 101 goes out, and what is in the input buffer is the protocol's. */
void as_relay_begin(as_exchange *exchange);
/* In phase RELAY: moves what can be moved. False when there is nothing more to do for now; true when the relay has come to its end and the connection to
 * another phase. */
bool as_relay_advance(as_conn *conn);
void as_relay_timed_out(as_exchange *exchange);
/* Nothing when there is none. */
void as_relay_free(as_exchange *exchange);

#endif
