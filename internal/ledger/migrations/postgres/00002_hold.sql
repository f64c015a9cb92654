-- +goose Up
-- JSON: the message itself, as long as the ledger owns it. State 4 is held.
ALTER TABLE pentrough_ledger ADD COLUMN message bytea;

-- +goose Down
ALTER TABLE pentrough_ledger DROP COLUMN message;
