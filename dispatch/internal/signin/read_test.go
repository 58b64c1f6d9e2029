package signin

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/forge"
)

func TestMayRead(t *testing.T) {
	for _, kind := range []string{Gitea, GitHub, GitLab, OIDC} {
		t.Run(kind, func(t *testing.T) {
			w := open(t, func(o *Options) { o.Kind = kind })
			w.forge.Do(func() { w.forge.Readable["octo acme/app"] = true })
			api := map[string]forge.Kind{Gitea: forge.Gitea, GitHub: forge.GitHub, GitLab: forge.GitLab, OIDC: forge.Gitea}[kind]
			p := &Person{id: "1", token: "none"}
			if _, err := w.door.MayRead(t.Context(), p, api, "acme/app"); !errors.Is(err, ErrSignedOut) {
				t.Errorf("with a token that is none: %v", err)
			}
			c := w.browser(nil)
			w.get(c, "/signin")
			r := httptest.NewRequest("GET", "/", nil)
			for _, cookie := range c.Jar.Cookies(parse(t, w.URL)) {
				r.AddCookie(cookie)
			}
			if p = w.door.Who(r); p == nil {
				t.Fatal("nobody is in")
			}
			may := func(path string) bool {
				t.Helper()
				got, err := w.door.MayRead(t.Context(), p, api, path)
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			if !may("acme/app") || may("acme/secret") {
				t.Error("it is wrong")
			}
			// For a while it is remembered, and not longer.
			asked := w.forge.Asked()
			w.forge.Do(func() { w.forge.Readable["octo acme/app"] = false })
			if !may("acme/app") || w.forge.Asked() != asked {
				t.Error("it is asked again")
			}
			w.door.now = func() time.Time { return time.Now().Add(readFor) }
			if may("acme/app") {
				t.Error("it is remembered for ever")
			}
			// What cannot be had is no answer.
			w.forge.Do(func() { w.forge.Broken = true })
			if _, err := w.door.MayRead(t.Context(), p, api, "acme/other"); err == nil || strings.Contains(err.Error(), "T0KEN") {
				t.Errorf("%v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for range asking {
				w.door.read.places <- struct{}{}
			}
			if _, err := w.door.MayRead(ctx, p, api, "acme/more"); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestRemembered(t *testing.T) {
	r, now := newRemembered(), time.Now()
	if !r.add("kept", now.Add(time.Hour), now) || r.add("kept", now.Add(time.Hour), now) || !r.has("kept", now) {
		t.Error("it does not remember")
	}
	for i := range 2 * maxRemembered {
		r.add(fmt.Sprint(i), now.Add(time.Minute), now)
	}
	if len(r.all) > maxRemembered || !r.has("kept", now) {
		t.Errorf("it remembers %d", len(r.all))
	}
	if r.has("kept", now.Add(time.Hour)) || !r.add("kept", now.Add(2*time.Hour), now.Add(time.Hour)) {
		t.Error("it remembers for ever")
	}
	q := newReads()
	for i := range 2 * maxReads {
		q.learn(question{"a", fmt.Sprint(i)}, true, now)
	}
	q.learn(question{"b", "x"}, true, now)
	q.forget("a")
	if _, ok := q.known(question{"b", "x"}, now); len(q.answers) != 1 || !ok {
		t.Errorf("%d answers", len(q.answers))
	}
}
