//go:build !unix

package main

func plainProxy() {}
