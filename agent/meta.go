package main

import (
	"runtime"

	"example.com/converge/agent/internal/actor"
)

// meta is what the server's sessions page is told of the job: what tells
// people where they are, and nothing that is said of a person.
func meta(getenv func(string) string) map[string]string {
	m := map[string]string{"platform": runtime.GOOS + "/" + runtime.GOARCH}
	if job := actor.Detect(getenv); job.System != "" {
		m["ci"] = job.System
	}
	return m
}
