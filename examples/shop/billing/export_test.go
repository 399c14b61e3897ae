package billing

import "math/big"

// Hanging are payments that get no answer where the amount is above a limit.
func Hanging(above int64) Payments { return Payments{above: big.NewRat(above, 1), hangs: true} }
