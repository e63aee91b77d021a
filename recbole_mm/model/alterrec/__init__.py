"""AlterRec: an ID and a text network trained in turns; NFRec, their naive fusion."""
