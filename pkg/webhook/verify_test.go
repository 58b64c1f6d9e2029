package webhook_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/webhook"
)

const secret = "correct horse"

func sum(h func() hash.Hash, key, body string) string {
	mac := hmac.New(h, []byte(key))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

// headers are name and value by turns.
func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestVerify(t *testing.T) {
	const body = `{"a":"b"}`
	now := time.Unix(1_800_000_000, 0)
	stamp := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
	rawKey := []byte("0123456789abcdef0123456789abcdef")
	signing := "whsec_" + base64.StdEncoding.EncodeToString(rawKey)
	standard := func(key []byte, stamp string) string {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte("msg-1." + stamp + "." + body))
		return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	right, wrong := sum(sha256.New, secret, body), sum(sha256.New, "other", body)
	old := sum(sha1.New, secret, body)
	anything := errors.New("any error")
	for name, test := range map[string]struct {
		header   http.Header
		verifier webhook.Verifier
		want     error // anything: some error that is none of ours
	}{
		"github":                  {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+right), webhook.Verifier{}, nil},
		"github, wrong secret":    {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+wrong), webhook.Verifier{}, webhook.ErrSignature},
		"github, capitals":        {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+strings.ToUpper(right)), webhook.Verifier{}, nil},
		"github, no prefix":       {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", right), webhook.Verifier{}, webhook.ErrSignature},
		"github, prefix alone":    {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="), webhook.Verifier{}, webhook.ErrSignature},
		"github, half":            {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+right[:32]), webhook.Verifier{}, webhook.ErrSignature},
		"github, no hex":          {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+strings.Repeat("z", 64)), webhook.Verifier{}, webhook.ErrSignature},
		"github, unsigned":        {headers("X-GitHub-Event", "push"), webhook.Verifier{}, webhook.ErrUnsigned},
		"github, blank":           {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", ""), webhook.Verifier{}, webhook.ErrUnsigned},
		"github, twice":           {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+right, "X-Hub-Signature-256", "sha256="+wrong), webhook.Verifier{}, anything},
		"sha1":                    {headers("X-GitHub-Event", "push", "X-Hub-Signature", "sha1="+old), webhook.Verifier{}, anything},
		"sha1, allowed":           {headers("X-GitHub-Event", "push", "X-Hub-Signature", "sha1="+old), webhook.Verifier{AllowSHA1: true}, nil},
		"sha1 beside wrong 256":   {headers("X-GitHub-Event", "push", "X-Hub-Signature", "sha1="+old, "X-Hub-Signature-256", "sha256="+wrong), webhook.Verifier{AllowSHA1: true}, webhook.ErrSignature},
		"old secret":              {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+right), webhook.Verifier{Secrets: []string{"new", secret}}, nil},
		"no secret":               {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+right), webhook.Verifier{Secrets: []string{}}, webhook.ErrNoSecret},
		"empty secret, forged":    {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+sum(sha256.New, "", body)), webhook.Verifier{Secrets: []string{""}}, webhook.ErrNoSecret},
		"blank beside a secret":   {headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+sum(sha256.New, "", body)), webhook.Verifier{Secrets: []string{"", secret}}, webhook.ErrSignature},
		"gitea":                   {headers("X-Gitea-Event", "push", "X-Gitea-Signature", right), webhook.Verifier{}, nil},
		"gitea, as github":        {headers("X-Gitea-Event", "push", "X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+right), webhook.Verifier{}, nil},
		"gitea, no rescue":        {headers("X-Gitea-Event", "push", "X-Gitea-Signature", wrong, "X-Hub-Signature-256", "sha256="+right), webhook.Verifier{}, webhook.ErrSignature},
		"gitea's header, github":  {headers("X-GitHub-Event", "push", "X-Gitea-Signature", right), webhook.Verifier{}, webhook.ErrUnsigned},
		"gitea's token":           {headers("X-Gitea-Event", "push", "X-Gitlab-Token", secret), webhook.Verifier{}, webhook.ErrUnsigned},
		"forgejo":                 {headers("X-Forgejo-Event", "push", "X-Forgejo-Signature", right), webhook.Verifier{}, nil},
		"forgejo, gitea's header": {headers("X-Forgejo-Event", "push", "X-Gitea-Signature", right), webhook.Verifier{}, nil},
		"forgejo, no rescue":      {headers("X-Forgejo-Event", "push", "X-Forgejo-Signature", wrong, "X-Gitea-Signature", right), webhook.Verifier{}, webhook.ErrSignature},
		"gitlab":                  {headers("X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", secret), webhook.Verifier{}, nil},
		"gitlab, wrong":           {headers("X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", "other"), webhook.Verifier{}, webhook.ErrSignature},
		"gitlab, prefix":          {headers("X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", secret[:5]), webhook.Verifier{}, webhook.ErrSignature},
		"gitlab, none":            {headers("X-Gitlab-Event", "Push Hook"), webhook.Verifier{}, webhook.ErrUnsigned},
		"gitlab, github's":        {headers("X-Gitlab-Event", "Push Hook", "X-Hub-Signature-256", "sha256="+right), webhook.Verifier{}, webhook.ErrUnsigned},
		"gitlab, signed": {headers("X-Gitlab-Event", "Push Hook", "webhook-id", "msg-1", "webhook-timestamp", stamp(0), "webhook-signature", "v1,AAAA "+standard(rawKey, stamp(0))),
			webhook.Verifier{Secrets: []string{signing}}, nil},
		"gitlab, signed with a word": {headers("X-Gitlab-Event", "Push Hook", "webhook-id", "msg-1", "webhook-timestamp", stamp(0), "webhook-signature", standard([]byte(secret), stamp(0))),
			webhook.Verifier{}, nil},
		"gitlab, signed too early": {headers("X-Gitlab-Event", "Push Hook", "webhook-id", "msg-1", "webhook-timestamp", stamp(-6*time.Minute), "webhook-signature", standard([]byte(secret), stamp(-6*time.Minute))),
			webhook.Verifier{}, webhook.ErrOld},
		"gitlab, signed later": {headers("X-Gitlab-Event", "Push Hook", "webhook-id", "msg-1", "webhook-timestamp", stamp(6*time.Minute), "webhook-signature", standard([]byte(secret), stamp(6*time.Minute))),
			webhook.Verifier{}, webhook.ErrOld},
		"gitlab, another time": {headers("X-Gitlab-Event", "Push Hook", "webhook-id", "msg-1", "webhook-timestamp", stamp(time.Second), "webhook-signature", standard([]byte(secret), stamp(0))),
			webhook.Verifier{}, webhook.ErrSignature},
		"gitlab, no rescue": {headers("X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", secret, "webhook-id", "msg-1", "webhook-timestamp", stamp(0), "webhook-signature", "v1,AAAA"),
			webhook.Verifier{}, webhook.ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := webhook.Identify(test.header)
			if err != nil {
				t.Fatal(err)
			}
			v := test.verifier
			if v.Secrets == nil {
				v.Secrets = []string{secret}
			}
			v.Now = func() time.Time { return now }
			err = v.Verify(d, []byte(body))
			switch {
			case test.want == anything && err == nil, test.want != anything && !errors.Is(err, test.want):
				t.Errorf("%v, want %v", err, test.want)
			case err != nil && strings.Contains(err.Error(), secret):
				t.Errorf("the error tells the secret: %v", err)
			}
			if err := v.Verify(d, []byte(body+" ")); err == nil && test.header.Get("X-Gitlab-Token") == "" { // which is no signature
				t.Error("another body is accepted")
			}
		})
	}
}

func TestIdentify(t *testing.T) {
	for name, test := range map[string]struct {
		header          http.Header
		forge           webhook.Forge
		event, delivery string
	}{
		"github": {headers("X-GitHub-Event", "push", "X-GitHub-Delivery", "1"), webhook.GitHub, "push", "1"},
		"gitea": {headers("X-Gitea-Event", "push", "X-Gitea-Delivery", "2", "X-GitHub-Event", "push", "X-GitHub-Delivery", "1", "X-Gogs-Event", "push"),
			webhook.Gitea, "push", "2"},
		"forgejo": {headers("X-Forgejo-Event", "push", "X-Forgejo-Delivery", "3", "X-Gitea-Event", "push", "X-GitHub-Event", "push"), webhook.Forgejo, "push", "3"},
		"gitlab":  {headers("X-Gitlab-Event", "Tag Push Hook", "X-Gitlab-Event-UUID", "4", "Idempotency-Key", "5"), webhook.GitLab, "Tag Push Hook", "5"},
		"older":   {headers("X-Gitlab-Event", "Push Hook", "X-Gitlab-Event-UUID", "4"), webhook.GitLab, "Push Hook", "4"},
	} {
		d, err := webhook.Identify(test.header)
		if err != nil || d.Forge != test.forge || d.Event != test.event || d.ID != test.delivery {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	if _, err := webhook.Identify(headers("X-Event", "push")); !errors.Is(err, webhook.ErrUnknownSender) {
		t.Errorf("nobody's: %v", err)
	}
	for _, bad := range []http.Header{
		headers("X-GitHub-Event", "push", "X-GitHub-Event", "ping"),
		headers("X-GitHub-Event", "push", "X-GitHub-Delivery", strings.Repeat("a", 129)),
		headers("X-GitHub-Event", strings.Repeat("a", 129)),
	} {
		if d, err := webhook.Identify(bad); err == nil {
			t.Errorf("%v: %+v", bad, d)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("X-Hub-Signature-256", "sha256=00", "push")
	f.Add("Webhook-Signature", "v1,AAAA", "Push Hook")
	f.Fuzz(func(t *testing.T, name, value, event string) {
		for _, sender := range []string{"X-GitHub-Event", "X-Gitea-Event", "X-Forgejo-Event", "X-Gitlab-Event"} {
			h := headers(sender, event, name, value)
			d, err := webhook.Identify(h)
			if err != nil {
				continue
			}
			if err := (&webhook.Verifier{Secrets: []string{"V3ry s3cr3t, and nowhere in the input"}, AllowSHA1: true}).Verify(d, []byte("body")); err == nil {
				t.Errorf("%v is accepted", h)
			}
		}
	})
}
