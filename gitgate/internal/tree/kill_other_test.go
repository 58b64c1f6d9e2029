//go:build !unix

package tree_test

func updateForever() {}
