package share

import (
	"errors"
	"io"
	"sync"
	"testing"
)

func TestFull(t *testing.T) {
	s := newStage(t)
	var screens []*screen
	for range maxViewers {
		screens = append(screens, s.view(t, Person{Name: "one"}, nil))
	}
	if _, err := s.Enter(Person{}, ""); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	screens[3].Leave()
	if _, err := s.Enter(Person{}, ""); err != nil {
		t.Error(err)
	}
	s.end("over")
	for _, sc := range screens {
		<-sc.done
	}
}

func TestLeaves(t *testing.T) {
	for typed, want := range map[string]bool{
		"q": true, "Q": true, "\x03": true, "\x04": true, "qq": true, "x\x03": true, "quit": true,
		"": false, "x": false, "\x1b[<0;10;20M": false, "\x1b[Mqqq": false, "\x1b[200~q\x1b[201~": false,
	} {
		if Leaves([]byte(typed)) != want {
			t.Errorf("%q: %v", typed, !want)
		}
	}
}

// Everything at once, for the race detector: people come, type and go while
// there is output.
func TestCrowd(t *testing.T) {
	s := newStage(t)
	var crowd sync.WaitGroup
	for i := range 8 {
		crowd.Go(func() {
			for range 20 {
				v, err := s.Enter(Person{Name: "one", Types: i%2 == 0, Size: Size{Cols: uint16(10 + i), Rows: 10}}, "")
				if err != nil {
					t.Error(err)
					return
				}
				var run sync.WaitGroup
				run.Go(func() { v.Run(io.Discard) })
				v.Type([]byte("x"))
				v.Resize(Size{Cols: uint16(20 + i), Rows: 20})
				v.Leave()
				run.Wait()
			}
		})
	}
	quit := make(chan struct{})
	var output sync.WaitGroup
	output.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			s.Output([]byte("some \x1b[?1049h output \x1b[?1049l\r\n"))
			s.ResizeOwner(Size{Cols: uint16(10 + i%50), Rows: 24})
			s.Place("a message")
		}
	})
	crowd.Wait()
	close(quit)
	output.Wait()
	s.end("over")
	if people := s.People(); len(people) != 1 || people[0].Name != "owner" {
		t.Errorf("%d people are left", len(people))
	}
}
