package console

import (
	"slices"
	"testing"
)

func TestMerge(t *testing.T) {
	got := merge([]string{"A=1", "B=b", "A=2", "no name", "C="}, []string{"B=x=y", "D=d", "D=e"})
	if want := []string{"A=2", "C=", "B=x=y", "D=e"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := merge(nil, nil); len(got) != 0 {
		t.Errorf("nothing is %q", got)
	}
}

func TestPidBytes(t *testing.T) {
	if got := pidBytes(0x0a0b0c0d); !slices.Equal(got, []byte{0x0d, 0x0c, 0x0b, 0x0a}) {
		t.Errorf("got %x", got)
	}
}
