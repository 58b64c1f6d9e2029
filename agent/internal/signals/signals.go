// Package signals says which signals a parent passes on to the one child that
// it stands for, and which of them the child has got already, from the terminal.
// It sends nothing itself, and knows neither whose child it is nor why.
package signals
