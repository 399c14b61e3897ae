package saga

import (
	"context"

)

func (s *shell) sweep(context.Context, *index, []string) error { return nil }
