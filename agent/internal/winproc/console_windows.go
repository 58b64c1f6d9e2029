package winproc

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// createPseudoConsole is there from Windows 10 1809 and Server 2019 on.
var createPseudoConsole = windows.NewLazySystemDLL("kernel32.dll").NewProc("CreatePseudoConsole")

// HasConsoles reports whether this Windows has pseudo consoles.
func HasConsoles() bool { return createPseudoConsole.Find() == nil }

// pseudoConsole is a pseudo console's handle.
type pseudoConsole windows.Handle

func (p pseudoConsole) resize(cols, rows int16) error {
	return windows.ResizePseudoConsole(windows.Handle(p), windows.Coord{X: cols, Y: rows})
}

func (p pseudoConsole) close() { windows.ClosePseudoConsole(windows.Handle(p)) }

// NewConsole makes a pseudo console of a size as Resize takes it. The caller
// ends it and closes its Input and Output.
func NewConsole(cols, rows uint16) (*Console, error) {
	if err := createPseudoConsole.Find(); err != nil {
		return nil, fmt.Errorf("no pseudo console: %w", err)
	}
	c := &Console{cols: cells(cols, defaultCols), rows: cells(rows, defaultRows)}
	var in, out *os.File
	var err error
	if in, c.Input, err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("no pseudo console: %w", err)
	}
	// The console's host has handles of its own. If these stayed open here,
	// the output would never end.
	defer in.Close()
	if c.Output, out, err = os.Pipe(); err != nil {
		c.Input.Close()
		return nil, fmt.Errorf("no pseudo console: %w", err)
	}
	defer out.Close()
	var handle windows.Handle
	err = windows.CreatePseudoConsole(windows.Coord{X: c.cols, Y: c.rows},
		windows.Handle(in.Fd()), windows.Handle(out.Fd()), 0, &handle)
	if err != nil {
		c.Input.Close()
		c.Output.Close()
		return nil, fmt.Errorf("no pseudo console: %w", err)
	}
	c.device = pseudoConsole(handle)
	return c, nil
}
