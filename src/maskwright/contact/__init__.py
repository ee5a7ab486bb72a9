"""Facts -> one self-contained HTML page on which a person sees in two minutes what is wrong, and what is normal."""

from maskwright.contact.page import contact_sheet

__all__ = ["contact_sheet"]
