package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/container"
)

// maxAnswer bounds an answer that is kept in memory.
const maxAnswer = 16 << 20

// json makes one request with a body and an answer of JSON; nil is none.
func (c *Client) json(ctx context.Context, method, path string, query url.Values, body, answer any) error {
	var r io.Reader
	var header http.Header
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(text)
		header = http.Header{"Content-Type": {"application/json"}}
	}
	resp, err := c.send(ctx, method, path, query, header, r)
	if err != nil {
		return err
	}
	defer discard(resp)
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(answer); err != nil {
		return errors.Join(errors.New("the engine's answer cannot be read"), err)
	}
	return nil
}

// Exec is what the engine says of a program that it was asked to run.
type Exec struct {
	Running bool
	// ExitCode is nil before the program has ended, and where it never began.
	ExitCode *int
}

// ExecCreate prepares a program in a container that runs.
func (c *Client) ExecCreate(ctx context.Context, id string, req container.ExecCreateRequest) (exec string, err error) {
	var made struct {
		ID string `json:"Id"`
	}
	err = c.try(ctx, "prepare the command", c.opts.Timeout, func(ctx context.Context, v string) error {
		return c.json(ctx, http.MethodPost, v+"/containers/"+id+"/exec", nil, req, &made)
	})
	return made.ID, err
}

// ExecStart starts a prepared program and attaches to it.
func (c *Client) ExecStart(ctx context.Context, exec string, req container.ExecStartRequest) (*Stream, error) {
	return c.hijack(ctx, "start the command", "/exec/"+exec+"/start", nil, req)
}

// ExecInspect says how a program does.
func (c *Client) ExecInspect(ctx context.Context, exec string) (Exec, error) {
	var e Exec
	err := c.try(ctx, "ask for the command's status", c.opts.Timeout, func(ctx context.Context, v string) error {
		e = Exec{}
		return c.json(ctx, http.MethodGet, v+"/exec/"+exec+"/json", nil, nil, &e)
	})
	return e, err
}

// ExecResize gives the terminal of a program its size in characters.
func (c *Client) ExecResize(ctx context.Context, exec string, columns, rows uint32) error {
	return c.try(ctx, "resize the terminal", c.opts.Timeout, func(ctx context.Context, v string) error {
		return c.json(ctx, http.MethodPost, v+"/exec/"+exec+"/resize", size(columns, rows), nil, nil)
	})
}
