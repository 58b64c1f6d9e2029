package trust

import "testing"

// TestEveryCombination is the whole table.
func TestEveryCombination(t *testing.T) {
	runs, all := Decision{Run: true}, Decision{Run: true, Secrets: true}
	for _, test := range []struct {
		in   Input
		want Decision
	}{
		{Input{Sender: false, Pull: false, Fork: false, Approved: false}, runs},
		{Input{Sender: true, Pull: false, Fork: false, Approved: false}, all},
		{Input{Sender: false, Pull: true, Fork: false, Approved: false}, runs},
		{Input{Sender: true, Pull: true, Fork: false, Approved: false}, runs},
		{Input{Sender: false, Pull: false, Fork: true, Approved: false}, Decision{}},
		{Input{Sender: true, Pull: false, Fork: true, Approved: false}, Decision{}},
		{Input{Sender: false, Pull: true, Fork: true, Approved: false}, Decision{}},
		{Input{Sender: true, Pull: true, Fork: true, Approved: false}, Decision{}},
		{Input{Sender: false, Pull: false, Fork: false, Approved: true}, all},
		{Input{Sender: true, Pull: false, Fork: false, Approved: true}, all},
		{Input{Sender: false, Pull: true, Fork: false, Approved: true}, all},
		{Input{Sender: true, Pull: true, Fork: false, Approved: true}, all},
		{Input{Sender: false, Pull: false, Fork: true, Approved: true}, all},
		{Input{Sender: true, Pull: false, Fork: true, Approved: true}, all},
		{Input{Sender: false, Pull: true, Fork: true, Approved: true}, all},
		{Input{Sender: true, Pull: true, Fork: true, Approved: true}, all},
	} {
		if got := Decide(test.in); got != test.want {
			t.Errorf("%+v: %+v, want %+v", test.in, got, test.want)
		}
	}
}
