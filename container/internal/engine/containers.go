package engine

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
)

// State is what the engine says of a container.
type State struct {
	ID    string `json:"Id"`
	Name  string
	Image string
	State struct {
		Status   string
		Running  bool
		ExitCode int
		Error    string
	}
	Config struct {
		Labels map[string]string
		Tty    bool
	}
}

// Summary is a container in a list.
type Summary struct {
	ID     string `json:"Id"`
	Names  []string
	State  string
	Labels map[string]string
}

// Create makes a container that does not run yet and returns its id. The name
// has to be unique to this call: a try whose answer was lost may have made it, and an
// error after such a one IsTransient, whatever came then.
func (c *Client) Create(ctx context.Context, name, platform string, req container.CreateRequest) (id string, err error) {
	query := url.Values{"name": {name}}
	if platform != "" {
		query.Set("platform", platform)
	}
	var made struct {
		ID string `json:"Id"`
	}
	tries, lost := 0, false
	err = c.try(ctx, "create the container", 0, func(ctx context.Context, v string) error {
		tries++
		err := c.json(ctx, http.MethodPost, v+"/containers/create", query, req, &made)
		lost = lost || err != nil && status(err) == 0
		if tries > 1 && IsConflict(err) {
			if s, found := c.inspect(ctx, v, name); found == nil {
				made.ID = s.ID
				return nil
			}
		}
		return err
	})
	if err != nil && lost {
		err = lostError{err}
	}
	return made.ID, err
}

// Start starts a container. One that runs already is no error.
func (c *Client) Start(ctx context.Context, id string) error {
	return c.try(ctx, "start the container", 0, func(ctx context.Context, v string) error {
		err := c.json(ctx, http.MethodPost, v+"/containers/"+id+"/start", nil, nil, nil)
		if status(err) == http.StatusNotModified {
			return nil
		}
		return err
	})
}

// Inspect says how a container does. The name may be an id, its beginning, or a
// name.
func (c *Client) Inspect(ctx context.Context, name string) (State, error) {
	var s State
	err := c.try(ctx, "inspect the container", c.opts.Timeout, func(ctx context.Context, v string) (err error) {
		s, err = c.inspect(ctx, v, name)
		return err
	})
	return s, err
}

func (c *Client) inspect(ctx context.Context, v, name string) (State, error) {
	var s State
	err := c.json(ctx, http.MethodGet, v+"/containers/"+url.PathEscape(name)+"/json", nil, nil, &s)
	return s, err
}

// List lists the containers with all these labels, NAME or NAME=VALUE; also
// those that do not run if all is set.
func (c *Client) List(ctx context.Context, all bool, labels ...string) ([]Summary, error) {
	filters, err := json.Marshal(map[string][]string{"label": labels})
	if err != nil {
		return nil, err
	}
	query := url.Values{"all": {strconv.FormatBool(all)}, "filters": {string(filters)}}
	var list []Summary
	err = c.try(ctx, "list containers", c.opts.Timeout, func(ctx context.Context, v string) error {
		return c.json(ctx, http.MethodGet, v+"/containers/json", query, nil, &list)
	})
	return list, err
}

// Kill sends a signal, by its name, to process 1 of a container.
func (c *Client) Kill(ctx context.Context, id, signal string) error {
	query := url.Values{"signal": {signal}}
	return c.try(ctx, "signal the container", c.opts.Timeout, func(ctx context.Context, v string) error {
		return c.json(ctx, http.MethodPost, v+"/containers/"+id+"/kill", query, nil, nil)
	})
}

// Remove kills a container if it runs and removes it with its anonymous
// volumes. One that is gone, or just going, is no error.
func (c *Client) Remove(ctx context.Context, id string) error {
	if err := c.remove(ctx, id); !IsNotFound(err) {
		return err
	}
	return nil
}

// RemoveComing removes a container that the engine may be making yet: it asks until
// there is one of that name, or ctx ends.
func (c *Client) RemoveComing(ctx context.Context, name string) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := c.remove(ctx, name)
		if !IsNotFound(err) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// remove is Remove, for which one that is gone is an error.
func (c *Client) remove(ctx context.Context, id string) error {
	query := url.Values{"force": {"true"}, "v": {"true"}}
	return c.try(ctx, "remove the container", 0, func(ctx context.Context, v string) error {
		err := c.json(ctx, http.MethodDelete, v+"/containers/"+id, query, nil, nil)
		if IsConflict(err) {
			if _, found := c.inspect(ctx, v, id); IsNotFound(found) {
				return nil
			}
			// Somebody else removes it, which may fail yet.
			return &Error{Status: http.StatusServiceUnavailable, Message: err.Error()}
		}
		return err
	})
}

// Attach attaches to all streams of a container, which may not have started.
func (c *Client) Attach(ctx context.Context, id string) (*Stream, error) {
	query := url.Values{"stream": {"true"}, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"true"}}
	return c.hijack(ctx, "attach to the container", "/containers/"+id+"/attach", query, nil)
}

// Resize gives the terminal of a container its size in characters.
func (c *Client) Resize(ctx context.Context, id string, columns, rows uint32) error {
	return c.try(ctx, "resize the terminal", c.opts.Timeout, func(ctx context.Context, v string) error {
		return c.json(ctx, http.MethodPost, v+"/containers/"+id+"/resize", size(columns, rows), nil, nil)
	})
}

func size(columns, rows uint32) url.Values {
	return url.Values{"w": {strconv.FormatUint(uint64(columns), 10)}, "h": {strconv.FormatUint(uint64(rows), 10)}}
}
