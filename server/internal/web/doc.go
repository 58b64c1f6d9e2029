// Package web serves the rendezvous server's pages and downloads: the home
// page, which shows the lines to paste with this server's own address filled
// in, the programs under /docs/, and the files of a folder that an operator may
// put in place of the embedded page.
//
// It also answers how a requester addresses this server and who the requester
// is (Origins), because behind a reverse proxy only the rules of trust decided
// here make those two answers safe to print in a page or to count in a limit.
//
// The package must know nothing of websockets, agents or clients: it is a plain
// http.Handler that starts no goroutine and holds nothing open between two
// requests, so it needs no Close.
package web
