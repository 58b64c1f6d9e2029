package forgekeys

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/converge/agent/internal/keys"
	"example.com/converge/pkg/transport"
)

const (
	// requestTimeout bounds one request with its redirects and body.
	requestTimeout = 20 * time.Second
	// fetchTimeout bounds all requests for one source.
	fetchTimeout = 2 * time.Minute
	// maxRedirects is how often a request is sent on, on its own host.
	maxRedirects = 3
	// parallel is how many users of a team are asked for at a time.
	parallel = 4
)

// refusedError is an answer that is no list, and is none by the forge's will.
type refusedError struct {
	status int
}

func (e *refusedError) Error() string {
	switch e.status {
	case http.StatusNotFound, http.StatusGone:
		return "there is nothing of that name, or the token may not see it"
	case http.StatusUnauthorized:
		return "it wants another token"
	case http.StatusForbidden:
		return "it refused (HTTP 403): the token may not see it, or there were too many requests from this address"
	case http.StatusTooManyRequests:
		return "there were too many requests from this address (HTTP 429)"
	}
	return fmt.Sprintf("it answered %d %s", e.status, http.StatusText(e.status))
}

// temporary reports whether the same request may be answered otherwise soon.
func temporary(err error) bool {
	var refused *refusedError
	if errors.As(err, &refused) {
		return refused.status >= 500 || refused.status == http.StatusTooManyRequests
	}
	var unsent *url.Error
	return errors.As(err, &unsent) && !errors.Is(err, errRedirect) && !transport.Permanent(err)
}

var errRedirect = errors.New("it sent the request elsewhere")

// fetcher asks one source.
type fetcher struct {
	source Source
	client *http.Client
	now    func() time.Time
}

// newFetcher makes the client of a source. Certificates are verified against
// the system's roots and those of the CA file: unlike the agent's server, the
// forge may be anywhere. The environment's proxies are used.
func newFetcher(source Source, caFile string) (*fetcher, error) {
	tr, err := transport.Options{}.Transport(source.address().String())
	if err != nil {
		return nil, err
	}
	if caFile != "" {
		if tr.TLSClientConfig.RootCAs, err = transport.Roots(caFile); err != nil {
			return nil, err
		}
	}
	tr.DisableKeepAlives = false
	tr.MaxConnsPerHost, tr.MaxIdleConnsPerHost = parallel, parallel
	return &fetcher{source: source, now: time.Now, client: &http.Client{
		Transport: tr, Timeout: requestTimeout,
		// A token and the trust in a name go no further than its host.
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			first := via[0].URL
			if req.URL.Scheme != first.Scheme || req.URL.Host != first.Host || len(via) > maxRedirects {
				return fmt.Errorf("%w, to %s", errRedirect, clean(req.URL))
			}
			return nil
		},
	}}, nil
}

// key is a key and whose it is.
type key struct {
	sum   keys.Digest
	owner string
}

// fetched is what a source answered.
type fetched struct {
	keys []key
	// notes tell what was left out and why.
	notes []string
	// members is the number of members of a team.
	members int
}

// fetch asks for all keys of the source. The error does not name the source.
func (f *fetcher) fetch(ctx context.Context) (fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	defer f.client.CloseIdleConnections()
	switch f.source.kind {
	case user:
		return f.user(ctx, f.source.name)
	case team:
		return f.team(ctx)
	}
	text, err := f.get(ctx, f.source.page.String(), "")
	if err != nil {
		return fetched{}, err
	}
	return collect(f.source.String(), text)
}

// user asks for the keys of one user: without a token on the page that is
// everybody's, for the API would soon answer a shared address no more.
func (f *fetcher) user(ctx context.Context, name string) (fetched, error) {
	server := f.source.server
	owner := name + " at " + server.base.Host
	if server.token == "" || server.Forge == Sourcehut {
		text, err := f.get(ctx, server.keysPage(name), "")
		if err != nil {
			return fetched{}, err
		}
		return collect(owner, text)
	}
	var all fetched
	err := f.pages(ctx, server.keysAPI(name), func(text []byte) (int, error) {
		list, left, count, err := decodeKeys(text, f.now())
		if err != nil {
			return 0, err
		}
		all.add(owner, list, left)
		if len(all.keys) > maxUserKeys {
			return 0, fmt.Errorf("it has more than %d keys", maxUserKeys)
		}
		return count, nil
	})
	return all, err
}

// collect reads a list that comes in one piece.
func collect(owner string, text []byte) (fetched, error) {
	list, left, err := decodeLines(text)
	if err != nil {
		return fetched{}, err
	}
	var all fetched
	all.add(owner, list, left)
	return all, nil
}

func (a *fetched) add(owner string, list []keys.Digest, left []skipped) {
	for _, sum := range list {
		a.keys = append(a.keys, key{sum, owner})
	}
	for _, s := range left {
		a.notes = append(a.notes, fmt.Sprintf("key %d of %s: %s", s.line, owner, s.why))
	}
}

// team asks who is in a team, and then for the keys of each. A member who is
// gone meanwhile has none; any other failure is that of the whole team.
func (f *fetcher) team(ctx context.Context) (fetched, error) {
	server := f.source.server
	var names []string
	err := f.pages(ctx, server.membersAPI(f.source.name), func(text []byte) (int, error) {
		page, count, err := decodeMembers(text, server.Forge, f.now())
		names = append(names, page...)
		if len(names) > maxMembers {
			return 0, fmt.Errorf("it has more than %d members: name a smaller one", maxMembers)
		}
		return count, err
	})
	if err != nil {
		return fetched{}, err
	}
	results, errs := make([]fetched, len(names)), make([]error, len(names))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	places := make(chan struct{}, parallel)
	var asking sync.WaitGroup
	for i, name := range names {
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			results[i], errs[i] = f.user(ctx, name)
			var refused *refusedError
			if errors.As(errs[i], &refused) && refused.status == http.StatusNotFound {
				results[i], errs[i] = fetched{notes: []string{name + ": there is no such user any more"}}, nil
			}
			if errs[i] != nil {
				errs[i] = fmt.Errorf("its member %s: %w", name, errs[i])
				cancel() // the others are in vain
			}
		})
	}
	asking.Wait()
	all := fetched{members: len(names)}
	for i := range names {
		// The first that failed, and not one that was called off.
		if errs[i] != nil && (err == nil || errors.Is(err, context.Canceled)) {
			err = errs[i]
		}
		if len(results[i].keys) == 0 {
			results[i].notes = append(results[i].notes, names[i]+" has no key")
		}
		all.keys = append(all.keys, results[i].keys...)
		all.notes = append(all.notes, results[i].notes...)
	}
	return all, err
}

// pages asks for a list page by page, until one is empty: forges cap the size
// of a page as they like.
func (f *fetcher) pages(ctx context.Context, address string, take func([]byte) (int, error)) error {
	for number := 1; number <= maxPages; number++ {
		query := url.Values{"page": {strconv.Itoa(number)}, "per_page": {"100"}}
		if f.source.server.Forge == Gitea {
			query = url.Values{"page": {strconv.Itoa(number)}, "limit": {"50"}}
		}
		text, err := f.get(ctx, address+"?"+query.Encode(), f.source.server.authorization())
		if err != nil {
			return err
		}
		count, err := take(text)
		if err != nil || count == 0 {
			return err
		}
	}
	return fmt.Errorf("its list has more than %d pages", maxPages)
}

// get returns the body of an answer. The error holds no query.
func (f *fetcher) get(ctx context.Context, address, authorization string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for it: %w", err)
	}
	req.Header.Set("User-Agent", "converge-agent")
	req.Header.Set("Accept", "text/plain, application/json;q=0.9, */*;q=0.1")
	if authorization != "" {
		req.Header.Set("Accept", "application/json")
		req.Header.Set("Authorization", authorization)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, f.explain(req.URL, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &refusedError{resp.StatusCode}
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); strings.HasPrefix(kind, "text/html") {
		return nil, fmt.Errorf("%w, a page for people: does it want a login? Give a token, or another address", errNotKeys)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, f.explain(req.URL, &url.Error{Op: "Get", URL: clean(req.URL), Err: err})
	}
	if len(text) > maxPage {
		return nil, fmt.Errorf("it answered with more than %d KiB", maxPage>>10)
	}
	return text, nil
}

// explain is the sentence for a request without an answer.
func (f *fetcher) explain(u *url.URL, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		wrapped.URL = clean(u) // the query of a page may be a secret
	}
	if errors.Is(err, errRedirect) {
		return fmt.Errorf("%w: give the address that has the keys itself", err)
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Errorf("%s does not speak TLS: check the address and the port: %w", u.Host, err)
	}
	return transport.Explain(u.Scheme+"://"+u.Host, err)
}
