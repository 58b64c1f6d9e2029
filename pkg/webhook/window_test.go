package webhook_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/pkg/webhook"
)

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := webhook.NewWindow(3, time.Minute)
		see := func(key string, want bool) {
			t.Helper()
			if got := w.Seen(key); got != want {
				t.Errorf("%s: %v", key, got)
			}
		}
		see("a", false)
		see("a", true)
		time.Sleep(59 * time.Second)
		see("a", true)
		time.Sleep(2 * time.Second)
		see("a", false)
		// The oldest goes where there are too many.
		see("b", false)
		see("c", false)
		see("d", false)
		see("b", true)
		see("a", false)
		// What was forgotten is new, and its old entry takes nothing along.
		w.Forget("a")
		see("a", false)
		see("e", false)
		see("f", false)
		see("a", true)
	})
}

func TestWindowIsBounded(t *testing.T) {
	w := webhook.NewWindow(10, time.Hour)
	for i := range 10_000 {
		w.Seen(fmt.Sprint(i))
	}
	known := 0
	for i := range 10_000 {
		key := fmt.Sprint(9_999 - i)
		if i < 10 && w.Seen(key) {
			known++
		}
	}
	if known != 10 {
		t.Errorf("%d are known", known)
	}
	never := webhook.NewWindow(0, time.Hour)
	first := never.Seen("a")
	if second := never.Seen("a"); first || second {
		t.Error("a window of none remembers")
	}
}
