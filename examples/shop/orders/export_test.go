package orders

import "github.com/wherry-go/wherry/saga"

func Definition() saga.Definition[change] { return (&Service{}).order() }
