//go:build !linux

package frame

import "errors"

// Poller waits for many idle connections with one goroutine. A nil *Poller is
// one that takes no connection.
type Poller struct{}

// NewPoller starts a poller, which must be closed when the connections that
// use it have ended. Where the system has none, as here, it is nil.
func NewPoller() (*Poller, error) { return nil, nil }

// Close ends the poller and waits for it. Close it once.
func (p *Poller) Close() {}

func (p *Poller) arm(*side) error { return errors.ErrUnsupported }
func (p *Poller) forget(*side)    {}
