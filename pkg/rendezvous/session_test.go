package rendezvous

import "testing"

func TestSession(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewSession()
		if !ValidSession(id) || seen[id] {
			t.Fatalf("%q is no new session's id", id)
		}
		seen[id] = true
	}
	for _, id := range []string{"", "aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaA", "aaaaaaaaaaaaaaa1", "aaaaaaaaaaaaaaa\n", "aaaaaaaaaaaaaaa ", "\x00aaaaaaaaaaaaaaa"} {
		if ValidSession(id) {
			t.Errorf("%q is taken for a session's id", id)
		}
	}
}
