package front

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// ParseOrigins checks origins of web pages (RFC 6454 §6.2): a scheme, a host
// and, where it is not the scheme's own, a port.
func ParseOrigins(texts []string) ([]string, error) {
	var origins []string
	for _, text := range texts {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
			!strings.EqualFold(text, u.Scheme+"://"+u.Host) {
			return nil, fmt.Errorf("%q is no origin: give one such as https://example.org, without a path", text)
		}
		// A browser leaves the usual port out.
		if port := u.Port(); port == "80" && u.Scheme == "http" || port == "443" && u.Scheme == "https" {
			u.Host = strings.TrimSuffix(u.Host, ":"+port)
		}
		origins = append(origins, strings.ToLower(u.Scheme+"://"+u.Host))
	}
	return origins, nil
}

// secure keeps browsers from making more of an answer than it is. Pages have a
// policy of their own in place of this one.
func secure(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}
