package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/probe"
)

// self in place of a URL means the server that has the same options.
const self = "self"

// check is what runs with --check.
func check(ctx context.Context, in *cmdline.Invocation) error {
	if in.String("check") == self {
		return checkSelf(ctx, in)
	}
	server, id, err := rendezvous.ParseAgentURL(in.String("check"))
	if err == nil && id != "" {
		err = errors.New("give the server's URL without an agent's id")
	}
	if err != nil {
		return cmdline.Usagef("--check: %v", err)
	}
	options, err := cmdline.ConnectOptions(in)
	if err != nil {
		return err
	}
	if err := probe.Check(ctx, server, options); err != nil {
		return err
	}
	_, err = fmt.Fprintln(in.Stdout, "ok: an agent could register, and a client reach it")
	return err
}

// selfWait bounds a question of checkSelf.
const selfWait = 5 * time.Second

// checkSelf asks the server on this machine that was started with the same
// --listen and --tls-cert whether it lives: what an image without a shell runs
// as its health check. It needs no token, registers nobody and leaves no trace in
// the audit log.
func checkSelf(ctx context.Context, in *cmdline.Invocation) error {
	target, err := selfURL(in.String("listen"), in.String("tls-cert") != "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, selfWait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		// The certificate is for the name that others know, and nothing is told
		// to whoever listens on this port of this machine.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("no answer from the server on this machine: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", target, answer.Status)
	}
	_, err = fmt.Fprintln(in.Stdout, "ok: the server lives")
	return err
}

// selfURL is where a server with this --listen answers on this machine.
func selfURL(listen string, tls bool) (string, error) {
	if err := checkAddress(listen); err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if port == "0" {
		return "", cmdline.Usagef("--check self needs the port: --listen %s takes any", listen)
	}
	if address, err := netip.ParseAddr(host); host == "" || err == nil && address.IsUnspecified() {
		host = "127.0.0.1"
		if err == nil && address.Is6() {
			host = "::1"
		}
	}
	scheme := "http"
	if tls {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port) + "/healthz", nil
}
