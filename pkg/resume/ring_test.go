package resume

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestRing(t *testing.T) {
	tests := []struct {
		name   string
		start  uint64 // where the ring begins
		write  []int  // appended one after the other
		drop   []int  // discarded after each of them
		memory int    // at the end
	}{
		{"empty", 0, nil, nil, 0},
		{"a byte", 0, []int{1}, []int{0}, minBlock},
		{"exactly a block", 0, []int{minBlock}, []int{0}, minBlock},
		{"one more than a block", 0, []int{minBlock, 1}, []int{0, 0}, 2 * minBlock},
		{"around the end", 0, []int{minBlock - 3, 10, minBlock / 2}, []int{minBlock - 9, 5, 0}, minBlock},
		{"grows around the end", 0, []int{minBlock - 3, minBlock / 2, minBlock}, []int{minBlock / 2, 3, 0}, 2 * minBlock},
		{"empty in between", 7, []int{minBlock - 3, minBlock}, []int{minBlock - 3, 1}, minBlock},
		{"grows twice", 5, []int{minBlock, 2 * minBlock, minBlock / 2}, []int{1, 0, 7}, 4 * minBlock},
		{"high offsets", 1<<63 - 5, []int{minBlock - 1, 1}, []int{17, 3}, minBlock},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rnd := rand.NewChaCha8([32]byte{1})
			r := ring{start: test.start, end: test.start}
			var want []byte
			for i, n := range test.write {
				p := make([]byte, n)
				_, _ = rnd.Read(p)
				r.append(p)
				want = append(want, p...)[test.drop[i]:]
				r.discard(r.start + uint64(test.drop[i]))
				got := make([]byte, r.len())
				r.read(got, r.start)
				if !bytes.Equal(got, want) {
					t.Fatalf("after %d appends the ring holds something else", i+1)
				}
				if half := len(want) / 2; half > 0 {
					r.read(got[:half], r.end-uint64(half))
					if !bytes.Equal(got[:half], want[len(want)-half:]) {
						t.Fatalf("after %d appends the second half is something else", i+1)
					}
				}
			}
			if r.len() > 0 && r.memory() != test.memory {
				t.Errorf("the ring holds %d bytes of memory, want %d", r.memory(), test.memory)
			}
			r.trim()
			if r.len() > 0 && r.memory() == 0 {
				t.Error("trim took the memory of a ring in use")
			}
			r.discard(r.end)
			r.trim()
			if r.memory() != 0 {
				t.Error("an empty ring kept its memory")
			}
			r.append([]byte("again"))
			got := make([]byte, 5)
			r.read(got, r.start)
			if string(got) != "again" {
				t.Errorf("after trim the ring holds %q", got)
			}
			r.discard(r.end)
			r.trim()
		})
	}
}

func TestBlockClass(t *testing.T) {
	for n, want := range map[int]int{1: 0, minBlock: 0, minBlock + 1: 1, 2 * minBlock: 1, 2*minBlock + 1: 2, maxBlock: 10} {
		if got := blockClass(n); got != want {
			t.Errorf("blockClass(%d) = %d, want %d", n, got, want)
		}
		block := blocks[blockClass(n)].Get().(*[]byte)
		if len(*block) < n || n > minBlock && len(*block) >= 2*n {
			t.Errorf("a block for %d bytes has %d", n, len(*block))
		}
	}
}
