package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// pointerName is the file in the agent's folder that leads to the door.
const pointerName = ".control"

// maxPointer bounds what is read of it, in bytes.
const maxPointer = 4 << 10

// Env is the part of the environment that tells where agents may be.
type Env struct {
	// AgentDir is CONVERGE_AGENTDIR: the folder of the agent whose shell this
	// is; "" outside.
	AgentDir string
	// Folders are the user's folders for doors, the best first. An agent takes
	// the first that it can use.
	Folders []string
}

// Environment reads the process's.
func Environment() Env {
	return Env{AgentDir: os.Getenv("CONVERGE_AGENTDIR"), Folders: folders()}
}

// Do finds the agent, asks it and returns its answer. id chooses among several
// agents; "" takes the one whose shell this is, or else the only one. The error
// is a sentence: there is no such agent, or several, or it did not do what was
// asked.
func (e Env) Do(ctx context.Context, id string, r Request) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	address, err := e.find(ctx, id)
	if err != nil {
		return Response{}, err
	}
	response, err := ask(ctx, address, r)
	switch {
	case err != nil:
		return Response{}, fmt.Errorf("cannot reach the agent: %w", err)
	case response.Error != "":
		return Response{}, errors.New(response.Error)
	}
	return response, nil
}

// find returns the address of the agent meant.
func (e Env) find(ctx context.Context, id string) (string, error) {
	if e.AgentDir != "" {
		address, err := readPointer(e.AgentDir)
		switch {
		case err == nil && id == "":
			return address, nil
		case err == nil:
			if status := knock(ctx, address); status != nil && status.ID == id {
				return address, nil
			}
		case id == "":
			return "", fmt.Errorf("the agent of this shell has ended, or takes no commands: %w", err)
		}
	}
	var ids []string
	found := ""
	for _, address := range e.addresses() {
		status := knock(ctx, address)
		switch {
		case status == nil:
		case id == "" || status.ID == id:
			found = address
			ids = append(ids, status.ID)
		}
	}
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("look for the agent: %w", context.Cause(ctx))
	case len(ids) == 1:
		return found, nil
	case len(ids) > 1:
		slices.Sort(ids)
		return "", fmt.Errorf("%d agents run here: choose one by --id (%s)", len(ids), strings.Join(ids, ", "))
	case id != "":
		return "", fmt.Errorf("no agent of this user has the id %s: leave --id out if there is but one", id)
	}
	return "", errors.New("no agent of this user runs here: start one, or become the user that it runs as")
}

// addresses are those of all doors in the user's folders.
func (e Env) addresses() []string {
	var list []string
	for _, folder := range e.Folders {
		if private(folder) != nil {
			continue // somebody else's, or none
		}
		entries, err := os.ReadDir(folder)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			if strings.HasSuffix(entry.Name(), doorSuffix) && len(list) < maxDoors {
				list = append(list, doorAddress(filepath.Join(folder, entry.Name())))
			}
		}
	}
	return list
}

// knock asks an agent how it stands; nil if nobody answers.
func knock(ctx context.Context, address string) *Status {
	response, err := ask(ctx, address, Request{Op: StatusOp})
	if err != nil {
		return nil
	}
	return response.Status
}

// ask holds one conversation.
func ask(ctx context.Context, address string, r Request) (Response, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return Response{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	} else {
		_ = conn.SetDeadline(time.Now().Add(patience))
	}
	if err := send(conn, r); err != nil {
		return Response{}, err
	}
	var response Response
	if err := receive(conn, &response); err != nil {
		return Response{}, err
	}
	return response, nil
}

// readPointer returns the address that an agent has left in its folder.
func readPointer(dir string) (string, error) {
	f, err := os.Open(filepath.Join(dir, pointerName))
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no file", pointerName)
	}
	buf := make([]byte, maxPointer)
	n, err := f.Read(buf)
	if n == 0 {
		return "", fmt.Errorf("%s is empty: %w", pointerName, err)
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// writePointer leaves an address in the agent's folder, whole or not at all, and
// returns what removes it again, if it still is this one.
func writePointer(dir, address string) (remove func(), err error) {
	f, err := os.CreateTemp(dir, pointerName+"-") // 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // in vain after the rename
	_, err = f.WriteString(address + "\n")
	if closed := f.Close(); err == nil {
		err = closed
	}
	path := filepath.Join(dir, pointerName)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, err
	}
	return func() {
		if now, err := readPointer(dir); err == nil && now == address {
			_ = os.Remove(path)
		}
	}, nil
}

// removeStale removes a door behind which nobody is.
func removeStale(ctx context.Context, path string) {
	conn, err := dial(ctx, doorAddress(path))
	switch {
	case err == nil:
		conn.Close()
	case abandoned(err):
		_ = os.Remove(path) // or the next one does
	}
}
