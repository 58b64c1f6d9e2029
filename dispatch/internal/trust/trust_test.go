package trust

import "testing"

// TestEveryCombination is the whole table.
func TestEveryCombination(t *testing.T) {
	for _, test := range []struct {
		in   Input
		want Decision
	}{
		{Input{Sender: false, Fork: false, Approved: false}, Decision{Run: true}},
		{Input{Sender: true, Fork: false, Approved: false}, Decision{Run: true, Secrets: true}},
		{Input{Sender: false, Fork: true, Approved: false}, Decision{}},
		{Input{Sender: true, Fork: true, Approved: false}, Decision{}},
		{Input{Sender: false, Fork: false, Approved: true}, Decision{Run: true, Secrets: true}},
		{Input{Sender: true, Fork: false, Approved: true}, Decision{Run: true, Secrets: true}},
		{Input{Sender: false, Fork: true, Approved: true}, Decision{Run: true, Secrets: true}},
		{Input{Sender: true, Fork: true, Approved: true}, Decision{Run: true, Secrets: true}},
	} {
		if got := Decide(test.in); got != test.want {
			t.Errorf("%+v: %+v, want %+v", test.in, got, test.want)
		}
	}
}
