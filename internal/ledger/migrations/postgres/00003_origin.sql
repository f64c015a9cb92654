-- +goose Up
-- JSON: where the result goes if the source doesn't deliver the message again; null once confirmed.
ALTER TABLE pentrough_ledger ADD COLUMN origin bytea;

-- +goose Down
ALTER TABLE pentrough_ledger DROP COLUMN origin;
