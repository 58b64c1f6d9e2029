// Package rawio reads and writes sockets and pipes that never block without
// telling Go's scheduler, as its own network poller does. An ordinary system
// call announces that it may block: another thread wakes, and for a
// millisecond and more looks every 20 µs whether it does. Where a program only
// moves bytes, that is more wake-ups than the bytes themselves cause.
//
// What blocks must never be given to Read or Write: it would hold the thread,
// a processor of Go's and with it the whole program's garbage collector. Conn
// and File see to that; they change nothing where the system offers no such
// call.
//
// It knows nothing of what is moved.
package rawio
