package frame

import (
	"fmt"
	"strings"
)

// closeCases are section 7.
func closeCases() []autobahnCase {
	cases := []autobahnCase{
		{id: "7.1.1", what: "message, then close", bursts: once(0, text(hello), bye(1000, "")), want: "close", text: true},
		{id: "7.1.2", what: "two close frames", bursts: once(0, bye(1000, ""), refFrame{fin: true, op: 8}), want: "close"},
		{id: "7.1.3", what: "ping after close", bursts: once(0, bye(1000, ""), ping("")), want: "close"},
		{id: "7.1.4", what: "message after close", bursts: once(0, bye(1000, ""), text(hello)), want: "close", text: true, asText: "close"},
		{id: "7.1.5", what: "fragment, close, last fragment", bursts: once(0, part(1, "fragment1"), bye(1000, ""), last("fragment2")), want: "close", text: true},
		{id: "7.1.6", what: "256 KiB, message, close, ping", bursts: once(0, text(strings.Repeat("BAsd7&jh23", 26215)[:256<<10]), text(hello), bye(1000, ""), ping("")), want: "close", text: true},
		{id: "7.3.1", what: "close without payload", bursts: once(0, refFrame{fin: true, op: 8}), want: "close"},
		{id: "7.3.2", what: "close with one octet", bursts: once(0, refFrame{fin: true, op: 8, payload: []byte("a")}), want: "1002"},
		{id: "7.3.3", what: "close with a code", bursts: once(0, bye(1000, "")), want: "close"},
		{id: "7.3.4", what: "close with a code and a reason", bursts: once(0, bye(1000, hello)), want: "close"},
		{id: "7.3.5", what: "close with a reason of 123 octets", bursts: once(0, bye(1000, strings.Repeat("*", 123))), want: "close"},
		{id: "7.3.6", what: "close with a reason of 124 octets", bursts: once(0, bye(1000, strings.Repeat("*", 124))), want: "1002"},
		{id: "7.5.1", what: "close with a reason that is not UTF-8", bursts: once(0, bye(1000, notUTF8)), want: "1007"},
	}
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		cases = append(cases, autobahnCase{id: fmt.Sprint("7.7.", i+1), what: fmt.Sprintf("close with %d", code), bursts: once(0, bye(code, "")), want: "close"})
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		cases = append(cases, autobahnCase{id: fmt.Sprint("7.9.", i+1), what: fmt.Sprintf("close with %d, which may not be sent", code), bursts: once(0, bye(code, "")), want: "1002"})
	}
	for i, code := range []int{5000, 65535} {
		cases = append(cases, autobahnCase{id: fmt.Sprint("7.13.", i+1), what: fmt.Sprintf("close with %d, of which the RFC says nothing", code), bursts: once(0, bye(code, "")), want: "1002"})
	}
	return cases
}

// largeCases are sections 9 and 10. Every other group of 9 is the one after it
// as text; it is sent as that.
func largeCases() (cases []autobahnCase) {
	sizes := []int{64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20, 16 << 20}
	fragments := []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20}
	chops := []int{64, 128, 256, 512, 1024, 2048}
	rounds := []int{0, 16, 64, 256, 1024, 4096}
	for _, kind := range []string{"text", "binary"} {
		group := func(section, n int, what string, bursts []burst) *autobahnCase {
			c := autobahnCase{id: fmt.Sprintf("9.%d.%d", section, n), what: kind + " message " + what, bursts: bursts, want: "echo"}
			if kind == "text" {
				c.id = fmt.Sprintf("9.%d.%d", section-1, n)
				c.bursts[0].frames[0].op = 1
				c.want = "1003"
			}
			cases = append(cases, c)
			return &cases[len(cases)-1]
		}
		for i, n := range sizes {
			group(2, i+1, fmt.Sprintf("of %d KiB", n>>10), once(0, bin(n)))
		}
		for i, n := range fragments {
			group(4, i+1, fmt.Sprintf("of 4 MiB in fragments of %d", n), once(0, fragmented(4<<20, n)...))
		}
		for i, n := range chops {
			group(6, i+1, fmt.Sprintf("of 1 MiB, %d to a write", n), once(n, bin(1<<20)))
		}
		for i, n := range rounds {
			c := group(8, i+1, fmt.Sprintf("of %d octets, 1000 times, each after the echo of the one before", n), once(0, bin(n)))
			c.rounds = 1000
			if n == 0 && kind == "binary" {
				c.note = emptyNote
			}
		}
	}
	frames := fragmented(64<<10, 1300)
	frames[0].op = 1
	return append(cases, autobahnCase{id: "10.1.1", what: "message of 64 KiB in fragments of 1300", bursts: once(0, frames...), want: "echo", text: true})
}
