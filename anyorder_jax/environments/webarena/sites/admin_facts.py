"""Facts that WebArena-Verified's tasks take for granted of its shop's administration; all else is invented."""

from __future__ import annotations

ORDERS = {
    65: (130, "Grace Nguyen", "pending"),
    125: (249, "Lily Potter", "complete"),
    299: (598, "Sarah Miller", "pending"),
    300: (600, "Ava Brown", "processing"),
    301: (602, "Jane Smith", "pending"),
    302: (604, "Jane Doe", "pending"),
    303: (606, "Lily Potter", "pending"),
    304: (608, "Alex Thomas", "pending"),
    305: (610, "Alex Martin", "pending"),
    306: (612, "Brian Smith", "pending"),
    307: (614, "Samantha Jones", "pending"),
    308: (616, "Matt Baker", "canceled"),
    295: (590, "John Smith", "complete"),
    296: (592, "Emily Chen", "fraud"),
    297: (594, "Adam Garcia", "holded"),
}
"""Number -> (its address, customer, status)."""
STATUSES = {
    "pending": "Pending",
    "processing": "Processing",
    "complete": "Complete",
    "canceled": "Canceled",
    "fraud": "Suspected Fraud",
    "holded": "On Hold",
    "closed": "Closed",
}
PRODUCTS = {
    78: ("Teton Pullover Hoodie", 70.0, 50),
    478: ("Ryker LumaTech Tee (Crew-neck)", 32.0, 50),
    676: ("Helios Endurance Tank", 32.0, 50),
    1840: ("Cora Parachute Pant", 75.0, 50),
    1819: ("Karmen Yoga Pant", 39.0, 50),
    1481: ("Ariel Roll Sleeve Sweatshirt", 32.0, 50),
    237: ("Zeppelin Yoga Short", 69.0, 50),
    418: ("Primo Endurance Tank", 45.0, 50),
    721: ("Sparta Gym Tank", 18.0, 50),
    710: ("Tristan Endurance Tank", 18.0, 50),
    996: ("Pierce Gym Short", 32.0, 50),
    1796: ("Antonia Racer Tank", 34.0, 50),
    1684: ("Bella Tank", 29.0, 50),
    1108: ("Selene Yoga Hoodie", 42.0, 50),
    1556: ("Radiant Tee", 22.0, 50),
    1668: ("Lucia Cross-Fit Bra", 39.0, 50),
    350: ("Taurus Elements Shell", 65.0, 50),
    446: ("Gobi HeatTec Tee", 29.0, 50),
    682: ("Rocco Gym Tank", 24.0, 50),
    1861: ("Aeon Capri", 48.0, 50),
    872: ("Cronus Yoga Pant-33-Blue", 48.0, 0),
    544: ("Aero Daily Fitness Tee-XS-Brown", 24.0, 100),
    547: ("Aero Daily Fitness Tee-S-Brown", 24.0, 100),
    550: ("Aero Daily Fitness Tee-M-Brown", 24.0, 100),
    553: ("Aero Daily Fitness Tee-L-Brown", 24.0, 100),
    556: ("Aero Daily Fitness Tee-XL-Brown", 24.0, 100),
    1836: ("Cora Parachute Pant-28-White", 75.0, 100),
    1838: ("Cora Parachute Pant-29-Blue", 75.0, 100),
    111: ("Hollister Backyard Sweatshirt-XS-Green", 52.0, 100),
    114: ("Hollister Backyard Sweatshirt-S-Green", 52.0, 100),
    117: ("Hollister Backyard Sweatshirt-M-Green", 52.0, 100),
    120: ("Hollister Backyard Sweatshirt-L-Green", 52.0, 100),
    123: ("Hollister Backyard Sweatshirt-XL-Green", 52.0, 100),
    1841: ("Sahara Leggings-28-Blue", 75.0, 100),
    1842: ("Sahara Leggings-28-Gray", 75.0, 100),
    1843: ("Sahara Leggings-28-Red", 75.0, 100),
    1559: ("Gwyn Endurance Tee-XS-Yellow", 24.0, 100),
    1562: ("Gwyn Endurance Tee-S-Yellow", 24.0, 100),
    1565: ("Gwyn Endurance Tee-M-Yellow", 24.0, 100),
    1264: ("Ingrid Running Jacket-L-White", 84.0, 100),
    1267: ("Ingrid Running Jacket-XL-White", 84.0, 100),
    1573: ("Desiree Fitness Tee-XS-Black", 24.0, 100),
    499: ("Atomic Endurance Running Tee-XS-Blue", 29.0, 100),
    479: ("Deion Running Tee-XS-Blue", 28.0, 100),
    482: ("Deion Running Tee-S-Blue", 28.0, 100),
}
"""Number -> (name, price, how many there are). A name with parts is of one size and colour."""
REVIEWS = {
    51: ("Arden", "Circe Hooded Ice Fleece", 3, "approved"),
    93: ("Carlo", "Erikssen CoolTech Fitness Tank", 4, "approved"),
    109: ("Carlo", "Sinbad Fitness Tank", 5, "approved"),
    347: ("Mia", "Olivia 1/4 Zip Light Jacket", 5, "pending"),
    349: ("Noor", "Olivia 1/4 Zip Light Jacket", 3, "pending"),
    351: ("Ben", "Olivia 1/4 Zip Light Jacket", 1, "pending"),
    352: ("Ida", "Olivia 1/4 Zip Light Jacket", 4, "pending"),
    353: ("Olaf", "Olivia 1/4 Zip Light Jacket", 2, "pending"),
    201: ("Tess", "Antonia Racer Tank", 5, "approved"),
    202: ("Ugo", "Antonia Racer Tank", 2, "approved"),
    203: ("Vera", "Bella Tank", 4, "approved"),
    204: ("Wim", "Bella Tank", 5, "approved"),
    205: ("Xenia", "Selene Yoga Hoodie", 5, "approved"),
    206: ("Yann", "Selene Yoga Hoodie", 4, "approved"),
    207: ("Zoe", "Selene Yoga Hoodie", 4, "approved"),
    208: ("Abel", "Radiant Tee", 4, "approved"),
    209: ("Britt", "Lucia Cross-Fit Bra", 2, "approved"),
}
"""Number -> (who, of what, stars, status)."""
PAGES = {1: "404 Not Found", 2: "Home Page", 3: "Enable Cookies", 4: "Privacy Policy", 5: "About us"}
THEMES = {1: "Magento Blank", 3: "Magento Luma"}
CARRIERS = {
    "custom": "Custom Value",
    "dhl": "DHL",
    "fedex": "Federal Express",
    "ups": "United Parcel Service",
    "usps": "United States Postal Service",
}
REGIONS = {"12": "California", "18": "Florida", "43": "New York", "57": "Texas"}
REPORTS = {
    "report_sales/sales": "Orders",
    "report_sales/tax": "Tax",
    "report_sales/shipping": "Shipping",
    "report_sales/refunded": "Refunds",
    "report_sales/coupons": "Coupons",
    "report_sales/bestsellers": "Bestsellers",
    "report_product/viewed": "Product Views",
}
SIZES = {"167": "S", "177": "34", "179": "38"}
COLOURS = {"49": "Black", "50": "Blue", "60": "Yellow"}
