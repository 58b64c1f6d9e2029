package engine

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// Image is what the engine says of an image.
type Image struct {
	OS           string `json:"Os"`
	Architecture string
	Config       struct {
		Entrypoint, Cmd []string
	}
}

// Image describes an image of the engine's store; *Error 404 is none.
func (c *Client) Image(ctx context.Context, ref string) (Image, error) {
	var i Image
	err := c.try(ctx, "inspect the image", c.opts.Timeout, func(ctx context.Context, v string) error {
		return c.json(ctx, http.MethodGet, v+"/images/"+ref+"/json", nil, nil, &i)
	})
	return i, err
}

// Pull fetches an image from its registry. Without tag or digest it is the tag
// latest.
func (c *Client) Pull(ctx context.Context, ref, platform string, auth *registry.AuthConfig) error {
	query := url.Values{"fromImage": {ref}}
	if last := ref[strings.LastIndexByte(ref, '/')+1:]; !strings.ContainsAny(last, ":@") {
		// Otherwise engines fetch all tags.
		query.Set("tag", "latest")
	}
	if platform != "" {
		query.Set("platform", platform)
	}
	var header http.Header
	if auth != nil {
		text, err := json.Marshal(auth)
		if err != nil {
			return err
		}
		header = http.Header{"X-Registry-Auth": {base64.URLEncoding.EncodeToString(text)}}
	}
	return c.try(ctx, "pull the image", 0, func(ctx context.Context, v string) error {
		resp, err := c.send(ctx, http.MethodPost, v+"/images/create", query, header, nil)
		if err != nil {
			return err
		}
		defer discard(resp)
		return progress(resp.Body)
	})
}

// progress reads what is said of a pull to its end, and returns what went wrong.
func progress(r io.Reader) error {
	messages := json.NewDecoder(r)
	for {
		var m struct {
			Error       string `json:"error"`
			ErrorDetail struct {
				Message string `json:"message"`
			} `json:"errorDetail"`
		}
		switch err := messages.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the progress: %w", err)
		case m.ErrorDetail.Message != "":
			return &Error{Status: http.StatusNotFound, Message: m.ErrorDetail.Message}
		case m.Error != "":
			return &Error{Status: http.StatusNotFound, Message: m.Error}
		}
	}
}

// PathStat is what is known of a file in a container.
type PathStat struct {
	Size int64       `json:"size"`
	Mode fs.FileMode `json:"mode"`
	// LinkTarget is where a symbolic link leads, resolved.
	LinkTarget string `json:"linkTarget"`
}

// Stat looks for a file in a container, which need not run. found is false if
// there is none.
func (c *Client) Stat(ctx context.Context, id, path string) (s PathStat, found bool, err error) {
	query := url.Values{"path": {path}}
	err = c.try(ctx, "look for "+path, c.opts.Timeout, func(ctx context.Context, v string) error {
		resp, err := c.send(ctx, http.MethodHead, v+"/containers/"+id+"/archive", query, nil, nil)
		if err != nil {
			if IsNotFound(err) {
				return nil
			}
			return err
		}
		discard(resp)
		text, err := base64.StdEncoding.DecodeString(resp.Header.Get("X-Docker-Container-Path-Stat"))
		if err != nil {
			return &Error{Status: http.StatusBadRequest, Message: "the engine's answer about a file cannot be read"}
		}
		if err := json.Unmarshal(text, &s); err != nil {
			return &Error{Status: http.StatusBadRequest, Message: "the engine's answer about a file cannot be read"}
		}
		found = true
		return nil
	})
	return s, found, err
}

// Upload unpacks a tar archive into a folder of a container, which need not
// run. open gives it anew for each try.
func (c *Client) Upload(ctx context.Context, id, folder string, open func() (io.ReadCloser, error)) error {
	query := url.Values{"path": {folder}}
	header := http.Header{"Content-Type": {"application/x-tar"}}
	return c.try(ctx, "copy into the container", 0, func(ctx context.Context, v string) error {
		archive, err := open()
		if err != nil {
			return &Error{Status: http.StatusBadRequest, Message: err.Error()}
		}
		defer func() { _ = archive.Close() }()
		resp, err := c.send(ctx, http.MethodPut, v+"/containers/"+id+"/archive", query, header, archive)
		if err != nil {
			return err
		}
		discard(resp)
		return nil
	})
}
