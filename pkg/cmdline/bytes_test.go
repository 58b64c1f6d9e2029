package cmdline_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/cmdline"
)

func TestBytes(t *testing.T) {
	const wrong = -1
	for text, want := range map[string]int{
		"65536": 65536, "64KiB": 65536, "64kib": 65536, "1mib": 1 << 20, "4MiB": 4 << 20, "1GiB": 1 << 30, "1048577": 1<<20 + 1,
		"": wrong, "KiB": wrong, "64": wrong, "63KiB": wrong, "2GiB": wrong, "64KB": wrong, "64K": wrong, "6.4MiB": wrong,
		"-4MiB": wrong, "+4MiB": wrong, " 4MiB": wrong, "4 MiB": wrong, "0x4MiB": wrong,
		"18014398509482048KiB": wrong, "17179869185GiB": wrong, "99999999999999999999": wrong,
	} {
		got := wrong
		p := cmdline.Program{
			Name: "tool", Usage: "is tested", Flags: []cli.Flag{&cli.StringFlag{Name: "size"}},
			Run: func(_ context.Context, in *cmdline.Invocation) (err error) {
				n, err := cmdline.Bytes(in, "size", 64<<10, 1<<30)
				if err == nil {
					got = n
				}
				return err
			},
		}
		var said bytes.Buffer
		code := cmdline.Run(t.Context(), p, []string{"tool", "--size=" + text}, nil, &said, &said)
		switch {
		case got != want:
			t.Errorf("%q is %d, want %d", text, got, want)
		case want == wrong && (code != cmdline.ExitUsage || !strings.Contains(said.String(), "it must be a size from 64KiB to 1GiB")):
			t.Errorf("%q: exit code %d, %s", text, code, &said)
		}
	}
}
