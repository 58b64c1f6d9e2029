package ansi

import (
	"fmt"
	"strings"
)

// basic are the first sixteen colours, for a light page and for a dark one, each
// legible on its ground.
var basic = [2][16]string{
	{
		"#24292f", "#b42318", "#166a2e", "#7a5600", "#0b5cad", "#8e2a8b", "#0b6a75", "#57606a",
		"#4b535c", "#d0342c", "#1a7f37", "#946800", "#1f6feb", "#a33ea1", "#0f7f8c", "#6e7781",
	},
	{
		"#5c6670", "#ff7b72", "#56d364", "#e3b341", "#79b8ff", "#e39cf0", "#56d4dd", "#d0d7de",
		"#8b949e", "#ffa198", "#7ee787", "#f2cc60", "#a5d6ff", "#f0b8ff", "#76e3ea", "#ffffff",
	},
}

// Sheet is the style sheet for the classes that a Renderer uses, inside elements
// that a selector selects. Its variables --log and --log-ink are the page's, for
// what is shown in reverse: the ground of logs and their text.
func Sheet(selector string) string {
	var b strings.Builder
	colours := func(table [16]string) {
		for i, colour := range table {
			fmt.Fprintf(&b, "%s .f%d{color:%s}%s .b%d{background:%s}\n", selector, i, colour, selector, i, colour)
		}
	}
	colours(basic[0])
	b.WriteString("@media (prefers-color-scheme: dark) {\n")
	colours(basic[1])
	b.WriteString("}\n")
	for i := 16; i < 256; i++ {
		red, green, blue := rgb(i)
		fmt.Fprintf(&b, "%s .f%d{color:#%02x%02x%02x}%s .b%d{background:#%02x%02x%02x}\n", selector, i, red, green, blue, selector, i, red, green, blue)
	}
	for _, rule := range []string{
		"fr{color:var(--log)}", "br{background:var(--log-ink)}", "bo{font-weight:700}", "di{opacity:.7}", "it{font-style:italic}",
		"un{text-decoration:underline}", "st{text-decoration:line-through}",
	} {
		fmt.Fprintf(&b, "%s .%s\n", selector, rule)
	}
	return b.String()
}

// rgb are the values of a colour of the cube or of the greys.
func rgb(i int) (red, green, blue int) {
	if i >= 232 {
		v := 8 + 10*(i-232)
		return v, v, v
	}
	i -= 16
	return levels[i/36], levels[i/6%6], levels[i%6]
}
